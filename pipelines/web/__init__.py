"""What this project serves over HTTP to people and programs: access rules, and the page."""
