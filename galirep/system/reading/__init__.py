"""Reading files that may be damaged, foreign or hostile: what every format's reader checks before it uses a value."""
