"""The message stream: subscribe, record, replay, proxy, bridges and adapters."""
