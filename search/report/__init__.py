"""What a search found, for people: leaderboard, comparison and HTML report."""
