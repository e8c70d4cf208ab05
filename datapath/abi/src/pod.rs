//! Plain old data: the one macro that declares a structure of the contract, and its conversion to and from bytes.
//!
//! Bytes are those of a little-endian machine, which every target of skep's is (bpfel, x86-64, aarch64).

use crate::{Be16, Be32, Mac};

/// A structure of the contract, or a field of one.
pub trait Pod: Copy {
    /// Its size in bytes.
    const SIZE: usize;
}

/// How one field is written to and read from bytes of exactly [`Field::WIDTH`].
pub trait Field: Copy {
    /// The field's size in bytes.
    const WIDTH: usize;
    /// Writes the field; `out` has `WIDTH` bytes.
    fn put(self, out: &mut [u8]);
    /// Reads the field; `bytes` has `WIDTH` bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! integer_field {
    ($($t:ty),*) => {$(
        impl Field for $t {
            const WIDTH: usize = size_of::<$t>();
            fn put(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
            fn take(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$t>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
        }
    )*};
}
integer_field!(u8, i8, u16, u32, i32, u64);

macro_rules! wrapped_field {
    ($($t:ident($inner:ty)),*) => {$(
        impl Field for $t {
            const WIDTH: usize = size_of::<$inner>();
            fn put(self, out: &mut [u8]) {
                self.bits().put(out);
            }
            fn take(bytes: &[u8]) -> Self {
                Self::from_bits(<$inner>::take(bytes))
            }
        }
    )*};
}
wrapped_field!(Be16(u16), Be32(u32), Mac(u64));

impl<T: Field + Default, const N: usize> Field for [T; N] {
    const WIDTH: usize = T::WIDTH * N;
    fn put(self, out: &mut [u8]) {
        for (value, chunk) in self.into_iter().zip(out.chunks_exact_mut(T::WIDTH)) {
            value.put(chunk);
        }
    }
    fn take(bytes: &[u8]) -> Self {
        let mut all = [T::default(); N];
        for (value, chunk) in all.iter_mut().zip(bytes.chunks_exact(T::WIDTH)) {
            *value = T::take(chunk);
        }
        all
    }
}

/// Declares a structure of the contract: `repr(C)`, its size and each field's offset asserted, no padding, and
/// safe `to_bytes` and `from_bytes`.
macro_rules! pod {
    (
        $(#[$meta:meta])*
        pub struct $name:ident [$size:literal $(, packed($pack:literal))?] {
            $( $(#[$fmeta:meta])* $offset:literal $field:ident: $ty:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[repr(C $(, packed($pack))?)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $ty, )*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size, concat!(stringify!($name), ": size"));
            let mut sum = 0;
            $(
                assert!(core::mem::offset_of!($name, $field) == $offset,
                    concat!(stringify!($name), ".", stringify!($field), ": offset"));
                assert!(sum == $offset, concat!(stringify!($name), ": padding before ", stringify!($field)));
                sum += <$ty as $crate::Field>::WIDTH;
            )*
            assert!(sum == $size, concat!(stringify!($name), ": padding at the end"));
        };

        impl $crate::Pod for $name {
            const SIZE: usize = $size;
        }

        impl $name {
            /// The size in bytes.
            pub const SIZE: usize = $size;

            /// The bytes as the map or the event holds them.
            pub fn to_bytes(self) -> [u8; $size] {
                let mut out = [0; $size];
                $( <$ty as $crate::Field>::put(self.$field,
                    &mut out[$offset..$offset + <$ty as $crate::Field>::WIDTH]); )*
                out
            }

            /// The structure in the first `SIZE` bytes, or `None` if there are fewer.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let bytes = bytes.get(..$size)?;
                Some(Self {
                    $( $field: <$ty as $crate::Field>::take(
                        &bytes[$offset..$offset + <$ty as $crate::Field>::WIDTH]), )*
                })
            }
        }
    };
}
pub(crate) use pod;
