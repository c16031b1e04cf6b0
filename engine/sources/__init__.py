"""Where frames come from: files, folders of images, cameras, network streams and a synthetic scene.

`engine.sources.open.open_source(uri)` chooses the implementation. Heavy imports wait until a source is used.
"""
