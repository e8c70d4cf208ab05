//! Plan, World, evidence, judge and reports of a scenario.
