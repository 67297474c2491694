"""Published data sets, downloaded, unpacked and listed as a corpus."""
