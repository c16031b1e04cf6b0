"""Verbs that run an engine or change a running one."""
