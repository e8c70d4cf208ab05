//! What a real kernel does with the same programs.
