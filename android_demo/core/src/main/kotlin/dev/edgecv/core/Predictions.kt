package dev.edgecv.core

import kotlin.math.exp

/** One predicted class with its probability, 0..1. */
data class Prediction(val index: Int, val label: String, val probability: Double)

/** Softmax of the logits, without overflow. */
fun softmax(logits: FloatArray): DoubleArray {
    val highest = logits.maxOrNull()?.toDouble() ?: return DoubleArray(0)
    val powers = DoubleArray(logits.size) { exp(logits[it] - highest) }
    val sum = powers.sum()
    return DoubleArray(powers.size) { powers[it] / sum }
}

/** The indices of the [k] largest values, largest first; equal values by index, and NaN last. */
fun topK(values: FloatArray, k: Int): List<Int> =
    values.indices.sortedWith(
        compareByDescending<Int> { if (values[it].isNaN()) Float.NEGATIVE_INFINITY else values[it] }.thenBy { it },
    ).take(k)
