"""The event log: rule episodes, visits, counts and paths of finished tracks, kept in a database.

How the parts fit together, for anyone adding media or actions:

- `log.EventLog` is a fast sink. It turns findings into rows (`rows`) and hands them to `writing.StoreThread`, the
  only thread of the engine that writes to the store. It never waits for the disk.
- Media: an object with the methods of `log.EventFollower` gets every packet on the publishing thread together with the
  rows that the packet changed. It must not wait: encode on its own thread, then record the file with
  `log.submit(Job(lambda store: store.put_media(row)))` or `store.set_media_of_event(event_id, snapshot=...)`. An event
  that wants a clip has `clip_state` `due` from its beginning; `EventReader.due_clips` returns those that have ended.
- Actions: `log.Planner.plan` is called on the writing thread for each `begin`, `end` and `point`; the rows that it
  returns are written to `outbox` in the transaction of the event. Deliver what `EventReader.due_actions` returns, and
  record the result with `log.submit(Job(lambda store: store.put_action(row)))`.
- Readers (command line, web) use only `store.reader.EventReader`; edits by users (keep, review, snooze, delete) go
  through `store.writer.StoreWriter`, which works in any process and waits for its turn.
"""
