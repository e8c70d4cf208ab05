//! Does on a Linux node what agent/core decides.
