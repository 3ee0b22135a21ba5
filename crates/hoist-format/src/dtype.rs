//! The element types of tensors.

use serde::{Deserialize, Serialize};

macro_rules! dtypes {
    ($($variant:ident $name:literal $bits:literal $doc:literal;)*) => {
        /// The type of a tensor's elements: all that safetensors 0.8 knows. The order is that of the format: new ones
        /// come last.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Dtype {
            $(#[doc = $doc] $variant,)*
        }

        impl Dtype {
            /// Every dtype, in the order of the format.
            pub const ALL: &[Dtype] = &[$(Dtype::$variant,)*];

            /// The name that safetensors files use.
            pub fn name(self) -> &'static str {
                match self { $(Dtype::$variant => $name,)* }
            }

            /// Bits of one element; under 8 for packed types.
            pub fn bits(self) -> u64 {
                match self { $(Dtype::$variant => $bits,)* }
            }

            /// The dtype that safetensors files call `name`.
            pub fn from_name(name: &str) -> Option<Dtype> {
                match name { $($name => Some(Dtype::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    F32 "F32" 32 "IEEE single precision.";
    F16 "F16" 16 "IEEE half precision.";
    BF16 "BF16" 16 "Brain floating point.";
    F64 "F64" 64 "IEEE double precision.";
    I64 "I64" 64 "Signed, 64 bits.";
    I32 "I32" 32 "Signed, 32 bits.";
    I16 "I16" 16 "Signed, 16 bits.";
    I8 "I8" 8 "Signed, 8 bits.";
    U64 "U64" 64 "Unsigned, 64 bits.";
    U32 "U32" 32 "Unsigned, 32 bits.";
    U16 "U16" 16 "Unsigned, 16 bits.";
    U8 "U8" 8 "Unsigned, 8 bits.";
    Bool "BOOL" 8 "A byte that is 0 or 1.";
    C64 "C64" 64 "Complex, two single precision parts.";
    F8E5M2 "F8_E5M2" 8 "8 bits: 5 exponent, 2 mantissa.";
    F8E4M3 "F8_E4M3" 8 "8 bits: 4 exponent, 3 mantissa.";
    F8E8M0 "F8_E8M0" 8 "8 bits of exponent: an OCP microscaling scale.";
    F8E4M3Fnuz "F8_E4M3FNUZ" 8 "8 bits: 4 exponent, 3 mantissa, no infinity, one zero.";
    F8E5M2Fnuz "F8_E5M2FNUZ" 8 "8 bits: 5 exponent, 2 mantissa, no infinity, one zero.";
    F6E2M3 "F6_E2M3" 6 "6 bits packed: OCP microscaling.";
    F6E3M2 "F6_E3M2" 6 "6 bits packed: OCP microscaling.";
    F4 "F4" 4 "4 bits packed: OCP microscaling.";
}

impl Dtype {
    /// The bytes of a tensor of `shape` (no dimension: one element). `None` when that overflows, or is no whole
    /// number of bytes.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        // A zero anywhere makes it empty, whatever the product of the others: the order must not decide.
        if shape.contains(&0) {
            return Some(0);
        }
        let elements = shape.iter().try_fold(1u64, |product, length| product.checked_mul(*length))?;
        let bits = elements.checked_mul(self.bits())?;
        (bits % 8 == 0).then_some(bits / 8)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(*dtype));
        }
        assert_eq!(Dtype::from_name("F33"), None);
    }

    #[test]
    fn sizes_of_shapes() {
        assert_eq!(Dtype::F32.bytes(&[]), Some(4));
        assert_eq!(Dtype::BF16.bytes(&[3, 5]), Some(30));
        assert_eq!(Dtype::F4.bytes(&[3]), None, "12 bits are no whole bytes");
        assert_eq!(Dtype::F6E2M3.bytes(&[4]), Some(3));
        assert_eq!(Dtype::U8.bytes(&[u64::MAX, 0, u64::MAX]), Some(0));
        assert_eq!(Dtype::U8.bytes(&[1 << 33, 1 << 33]), None);
        assert_eq!(Dtype::F64.bytes(&[1 << 59]), None, "bits overflow");
    }
}
