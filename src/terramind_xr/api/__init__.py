"""The public verbs, one a file: scene → kernel → tiles → labels. The accessor re-attaches them."""
