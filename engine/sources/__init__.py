"""Where frames come from: files, folders of images, cameras, network streams and a synthetic scene.

`engine.sources.open.open_source(uri)` chooses the implementation. Nothing heavy is imported before a source is used.
"""
