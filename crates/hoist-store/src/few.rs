//! Values of which there is mostly one.

use std::ops::{Deref, DerefMut};

/// A vector whose only value needs no memory beside it: a large store has millions of runs of one tensor, in one place,
/// with one checksum.
#[derive(Debug, Clone)]
pub struct Few<T>(Kind<T>);

#[derive(Debug, Clone)]
enum Kind<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> Few<T> {
    /// As many times the same.
    pub(crate) fn of(value: T, count: usize) -> Few<T> {
        Few(if count == 1 { Kind::One(value) } else { Kind::Many(vec![value; count]) })
    }

    pub(crate) fn push(&mut self, value: T) {
        if self.is_empty() {
            self.0 = Kind::One(value);
        } else {
            self.vec().push(value);
        }
    }

    /// As a vector, to change how many there are.
    pub(crate) fn vec(&mut self) -> &mut Vec<T> {
        if let Kind::One(value) = &self.0 {
            self.0 = Kind::Many(vec![value.clone()]);
        }
        match &mut self.0 {
            Kind::Many(values) => values,
            Kind::One(_) => unreachable!("it has just become many"),
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few(Kind::Many(Vec::new()))
    }
}

impl<T> From<Vec<T>> for Few<T> {
    /// Takes no more memory than the values do.
    fn from(mut values: Vec<T>) -> Few<T> {
        if values.len() == 1
            && let Some(value) = values.pop()
        {
            return Few(Kind::One(value));
        }
        values.shrink_to_fit();
        Few(Kind::Many(values))
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Kind::One(value) => std::slice::from_ref(value),
            Kind::Many(values) => values,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Kind::One(value) => std::slice::from_mut(value),
            Kind::Many(values) => values,
        }
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Few<T>) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Few<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_vector_that_was_put_in() {
        let mut few = Few::default();
        for count in 0..4 {
            let expected: Vec<u64> = (0..count).collect();
            assert_eq!(few[..], expected);
            assert_eq!(few, Few::from(expected.clone()));
            assert_eq!(few.clone().vec(), &expected);
            assert_eq!(Few::of(7, count as usize)[..], vec![7; count as usize]);
            few.push(count);
        }
        few.vec().truncate(1);
        few[0] = 5;
        assert_eq!(few, Few::of(5, 1));
    }

    #[test]
    fn it_is_no_larger_than_what_it_is_made_of() {
        assert_eq!(size_of::<Few<u64>>(), size_of::<Vec<u64>>());
        assert_eq!(size_of::<Few<crate::location::Piece>>(), size_of::<crate::location::Piece>());
    }
}
