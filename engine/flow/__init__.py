"""How frames move: channels, stages and the pipeline that wires them. Independent of any camera, model or socket."""
