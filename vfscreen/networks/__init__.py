"""The networks as plain torch modules, their anchors and their weights."""
