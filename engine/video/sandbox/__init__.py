"""What a process that reads untrusted video may do: no other programs, no other hosts, no files but its own."""
