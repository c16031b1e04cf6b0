"""When frames were captured, and where one begins: arrivals, stream time, backlogs, pieces of RTP. Imports no numpy."""
