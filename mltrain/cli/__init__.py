"""The command line: a file a group of verbs; knows `api` alone, imports it late."""
