"""Networks in files of other projects: read, run by nobody, renamed."""
