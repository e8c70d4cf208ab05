//! What a type expects at a path: asks its own `Deserialize`, so that no second list of fields is needed.
//!
//! Deserializes from an input that has nothing but the one path. At its end the type says which fields its structure
//! has, or the name of its newtype; the values are never used.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// What a type says about the end of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The fields of the structure that stands there; none when it is no structure.
    pub(crate) fields: Option<&'static [&'static str]>,
    /// The name of the newtype that stands there.
    pub(crate) newtype: Option<&'static str>,
}

/// Asks `T` about a path.
pub(crate) fn of<T: DeserializeOwned>(path: &[Step]) -> Shape {
    let mut shape = Shape::default();
    // Always ends in an error: the input has no values. What was asked on the way is the answer.
    drop(T::deserialize(Walk { path, shape: &mut shape }));
    shape
}

/// The end of the walk; never shown.
#[derive(Debug)]
struct End;

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the walk has ended")
    }
}

impl std::error::Error for End {}

impl serde::de::Error for End {
    fn custom<T: fmt::Display>(_: T) -> End {
        End
    }
}

struct Walk<'p, 's> {
    path: &'p [Step],
    shape: &'s mut Shape,
}

impl<'de> Deserializer<'de> for Walk<'_, '_> {
    type Error = End;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        let (first, rest) = self.path.split_first().ok_or(End)?;
        let next = Some(Walk { path: rest, shape: self.shape });
        match first {
            Step::Key(key) => visitor.visit_map(OneEntry { key: Some(key), value: next }),
            Step::Index(_) => visitor.visit_seq(OneItem(next)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        if self.path.is_empty() {
            self.shape.fields = Some(fields);
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, End> {
        if self.path.is_empty() {
            self.shape.newtype = Some(name);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        if self.path.is_empty() {
            self.shape.fields = Some(variants);
        }
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

/// An externally tagged enum: the variant is the next key, and what follows belongs to it.
impl<'de> serde::de::EnumAccess<'de> for Walk<'_, '_> {
    type Error = End;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), End> {
        let Some((Step::Key(key), rest)) = self.path.split_first() else { return Err(End) };
        let variant = seed.deserialize(key.as_str().into_deserializer())?;
        Ok((variant, Walk { path: rest, shape: self.shape }))
    }
}

impl<'de> serde::de::VariantAccess<'de> for Walk<'_, '_> {
    type Error = End;

    fn unit_variant(self) -> Result<(), End> {
        Err(End)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, End> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, End> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        self.deserialize_struct("", fields, visitor)
    }
}

struct OneEntry<'p, 's> {
    key: Option<&'p str>,
    value: Option<Walk<'p, 's>>,
}

impl<'de> MapAccess<'de> for OneEntry<'_, '_> {
    type Error = End;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, End> {
        self.key.take().map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, End> {
        seed.deserialize(self.value.take().ok_or(End)?)
    }
}

struct OneItem<'p, 's>(Option<Walk<'p, 's>>);

impl<'de> SeqAccess<'de> for OneItem<'_, '_> {
    type Error = End;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, End> {
        self.0.take().map(|walk| seed.deserialize(walk)).transpose()
    }
}
