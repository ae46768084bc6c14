//! From Nodes to the routes of one machine.
