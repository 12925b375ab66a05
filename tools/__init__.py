"""The commands of ssl-bench, installed as the package ssl_tools; each file is one command."""
