"""One file for each noun of the command line; each registers its commands on the app."""
