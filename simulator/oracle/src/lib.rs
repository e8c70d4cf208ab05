//! What the API text says should happen, and packet checkers.
