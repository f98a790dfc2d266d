"""What those who run a service ask of it: is it alive, is it ready, what does it do, and how fast."""
