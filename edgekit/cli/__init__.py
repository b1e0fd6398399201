"""The command line: click; one file a command; nothing heavy is imported before a command needs it."""
