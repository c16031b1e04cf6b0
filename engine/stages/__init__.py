"""The stages of the pipeline, in the order in which a frame meets them.

CaptureStage (one per source) → Batcher → SubmitStage → CollectStage → TrackStage → PublishStage → SinkStage (each)
"""
