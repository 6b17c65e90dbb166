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

/** The probability of a logit alone. */
fun sigmoid(logit: Float): Double = 1 / (1 + exp(-logit.toDouble()))

/** The names of the classes that a model with that many outputs decides between; null if its record has none. */
fun classNames(record: Record, outputs: Int): List<String>? =
    record.labels?.let { if (outputs == 1 && it.size == 1) listOf("not ${it[0]}", it[0]) else it }

/**
 * The most probable classes, most probable first. A single output decides between two classes, at a probability of 0.5.
 *
 * @param values the dequantized outputs.
 * @param record says what the outputs mean, and names the classes.
 * @param count how many classes to return.
 */
fun predictions(values: FloatArray, record: Record, count: Int): List<Prediction> {
    val output = record.output
    val single = values.size == 1
    val each = when {
        !output.logits -> DoubleArray(values.size) { values[it].toDouble() }
        single || output.activation == OutputRecord.SIGMOID -> DoubleArray(values.size) { sigmoid(values[it]) }
        else -> softmax(values)
    }
    val probabilities = if (single) doubleArrayOf(1 - each[0], each[0]) else each
    val labels = classNames(record, values.size)
    val scores = if (single) FloatArray(2) { probabilities[it].toFloat() } else values
    return topK(scores, count).map { Prediction(it, labels?.get(it) ?: "class $it", probabilities[it]) }
}

/** The indices of the [k] largest values, largest first; equal values by index, and NaN last. */
fun topK(values: FloatArray, k: Int): List<Int> =
    values.indices.sortedWith(
        compareByDescending<Int> { if (values[it].isNaN()) Float.NEGATIVE_INFINITY else values[it] }.thenBy { it },
    ).take(k)
