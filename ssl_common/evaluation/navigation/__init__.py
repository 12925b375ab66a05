"""Task 9: visual navigation by a policy that sees through a frozen layer of a network."""
