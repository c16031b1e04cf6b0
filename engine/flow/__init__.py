"""How frames move: channels, stages and the pipeline that wires them. Knows no camera, no model and no socket."""
