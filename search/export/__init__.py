"""The winner as a folder to use and to share."""
