//! Layers and their order from the names of tensors.

use std::cmp::Ordering;

/// Parts of names that embeddings carry in the model files of BERT, GPT-2, Llama and their relatives.
const EMBEDDINGS: [&str; 3] = ["embed", "wte", "wpe"];

/// The layer that a tensor belongs to: its name up to the first number (`encoder.layer.3`), or up to the embedding
/// (`bert.embeddings`), or without its last part (`pooler.dense`).
pub fn layer_of(name: &str) -> &str {
    let parts: Vec<&str> = name.split('.').collect();
    let last = parts.len() - 1;
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let ends_in_digit = |part: &&str| part.ends_with(|c: char| c.is_ascii_digit());
    let count = parts
        .iter()
        .position(|part| is_number(part) || is_embedding(part))
        .or_else(|| parts[..last].iter().position(ends_in_digit))
        .map_or(last.max(1), |at| at + 1);
    let bytes = parts[..count].iter().map(|part| part.len() + 1).sum::<usize>() - 1;
    &name[..bytes]
}

fn is_embedding(part: &str) -> bool {
    EMBEDDINGS.iter().any(|word| part.contains(word))
}

/// The order of two layers in a forward pass: embeddings, then what is numbered, then the rest.
pub fn compare_layers(a: &str, b: &str) -> Ordering {
    let rank = |layer: &str| match layer {
        layer if layer.split('.').any(is_embedding) => 0,
        layer if layer.ends_with(|c: char| c.is_ascii_digit()) => 1,
        _ => 2,
    };
    rank(a).cmp(&rank(b)).then_with(|| compare_names(a, b))
}

/// The order of names in which runs of digits count as numbers: `h.2` before `h.10`.
pub fn compare_names(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    while let (Some(token_a), Some(token_b)) = (token(rest_a), token(rest_b)) {
        rest_a = &rest_a[token_a.len()..];
        rest_b = &rest_b[token_b.len()..];
        let number = |token: &str| token.bytes().all(|byte| byte.is_ascii_digit());
        let order = if number(token_a) && number(token_b) {
            // As text without leading zeros: a name may have more digits than any integer type.
            let (a, b) = (token_a.trim_start_matches('0'), token_b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            token_a.cmp(token_b)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// The first run of digits, or of anything else.
fn token(text: &str) -> Option<&str> {
    let digit = text.chars().next()?.is_ascii_digit();
    let end = text.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(text.len());
    Some(&text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layers_come_from_names() {
        for (name, layer) in [
            ("encoder.layer.10.attention.self.key.bias", "encoder.layer.10"),
            ("embeddings.word_embeddings.weight", "embeddings"),
            ("bert.embeddings.LayerNorm.weight", "bert.embeddings"),
            ("model.embed_tokens.weight", "model.embed_tokens"),
            ("model.norm.weight", "model.norm"),
            ("pooler.dense.bias", "pooler.dense"),
            ("h.3.ln_1.weight", "h.3"),
            ("ln_f.bias", "ln_f"),
            ("wte.weight", "wte"),
            ("layer10.conv.weight", "layer10"),
            ("weight1", "weight1"),
            ("", ""),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn a_forward_pass_has_its_order() {
        let mut layers = [
            "lm_head",
            "model.layers.10",
            "model.norm",
            "model.layers.9",
            "model.layers.2",
            "model.embed_tokens",
        ];
        layers.sort_by(|a, b| compare_layers(a, b));
        let expected = [
            "model.embed_tokens",
            "model.layers.2",
            "model.layers.9",
            "model.layers.10",
            "lm_head",
            "model.norm",
        ];
        assert_eq!(layers, expected);
    }

    proptest! {
        #[test]
        fn any_names_are_ordered(names in proptest::collection::vec("[a-b0-2.é]{0,8}", 3)) {
            for name in &names {
                prop_assert!(name.starts_with(layer_of(name)));
            }
            let [a, b, c] = [&names[0], &names[1], &names[2]];
            prop_assert_eq!(compare_layers(a, b), compare_layers(b, a).reverse());
            prop_assert_eq!(compare_layers(a, b) == Ordering::Equal, a == b);
            if compare_layers(a, b).is_le() && compare_layers(b, c).is_le() {
                prop_assert!(compare_layers(a, c).is_le());
            }
        }
    }
}
