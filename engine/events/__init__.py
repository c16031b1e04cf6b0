"""The event log: rule episodes, visits, counts and paths of finished tracks, kept in a database.

How the parts meet, for whoever adds media or actions:

- `log.EventLog` is a quick sink. It turns findings into rows (`rows`) and hands them to `writing.StoreThread`, the
  only thread of the engine that writes to the store. It never waits for the disk.
- Media: an object with the methods of `log.EventFollower` gets every packet on the publishing thread together with
  the rows that the packet changed. It must not wait: encode on a thread of its own, then record the file with
  `log.submit(Job(lambda store: store.put_media(row)))` or `store.set_media_of_event(event_id, snapshot=...)`. An event
  that deserves a clip has `clip_state` `due` from its begin on; `EventReader.due_clips` returns those that have ended.
- Actions: `log.Planner.plan` is called on the writing thread for each begin, end and point; the rows that it returns
  are written to `outbox` in the transaction of the event. Deliver what `EventReader.due_actions` returns, and record
  the result with `log.submit(Job(lambda store: store.put_action(row)))`.
- Readers (command line, web) use `store.reader.EventReader` only; people's edits (keep, review, snooze, delete) go
  through `store.writer.StoreWriter` in any process: it waits for its turn.
"""
