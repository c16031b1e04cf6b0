"""The HTTP servers for people and programs: access rules, and the page."""
