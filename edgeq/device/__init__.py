"""The device itself: connections to boards and phones, and edgeq-runner on them."""
