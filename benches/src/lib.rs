//! Datapath paths against each other, as ratios in one run.
