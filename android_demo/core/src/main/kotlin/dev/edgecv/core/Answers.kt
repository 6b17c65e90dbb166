package dev.edgecv.core

import kotlin.math.exp

/** One class that a model may have seen, and how probable it says that is, 0..1. */
data class Answer(val index: Int, val label: String, val probability: Double)

/** Probabilities of logits, without overflow. */
fun softmax(logits: FloatArray): DoubleArray {
    val highest = logits.maxOrNull()?.toDouble() ?: return DoubleArray(0)
    val powers = DoubleArray(logits.size) { exp(logits[it] - highest) }
    val sum = powers.sum()
    return DoubleArray(powers.size) { powers[it] / sum }
}

/** The [k] highest values' places, highest first; of equal ones the lower place first, and what is no number last. */
fun topK(values: FloatArray, k: Int): List<Int> =
    values.indices.sortedWith(
        compareByDescending<Int> { if (values[it].isNaN()) Float.NEGATIVE_INFINITY else values[it] }.thenBy { it },
    ).take(k)
