"""Results of a search for people: leaderboard, comparison of runs, and HTML report."""
