"""The kinds of actions: webhook, apprise, mqtt, record and command."""
