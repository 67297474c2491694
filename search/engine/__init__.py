"""The decisions of a search, without Ray and without a clock."""
