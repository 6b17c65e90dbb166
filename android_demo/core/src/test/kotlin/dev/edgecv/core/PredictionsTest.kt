package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class PredictionsTest {
    @Test
    fun `topK sorts NaN last and equal values by index`() {
        assertEquals(listOf(2, 1, 3, 0), topK(floatArrayOf(Float.NaN, 1f, 2f, 1f), 4))
        assertEquals(listOf(0, 1), topK(floatArrayOf(1f, 1f), 5))
    }

    @Test
    fun `a single output decides between two classes at a probability of one half`() {
        fun record(values: String, vararg labels: String) =
            Record("net", labels = labels.toList(), output = OutputRecord(values = values, activation = OutputRecord.SIGMOID))
        val (dog, cat) = predictions(floatArrayOf(0.8f), record(OutputRecord.PROBABILITIES, "cat", "dog"), 5)
        assertEquals(listOf("dog", "cat"), listOf(dog.label, cat.label))
        assertEquals(listOf(0.8, 0.2), listOf(dog.probability, cat.probability).map { Math.round(it * 1000) / 1000.0 })
        val negative = predictions(floatArrayOf(-2f), record(OutputRecord.LOGITS, "dog"), 1).single()
        assertEquals(0 to "not dog", negative.index to negative.label)
        assertEquals(1 / (1 + Math.exp(-2.0)), negative.probability, 1e-9)
        val several = predictions(floatArrayOf(0f, 3f), record(OutputRecord.LOGITS, "cat", "dog"), 2)
        assertEquals(0.5, several[1].probability, 1e-9)
    }

    @Test
    fun `probabilities of huge logits are finite`() {
        val probabilities = softmax(floatArrayOf(1e30f, -1e30f, 1e30f))
        assertEquals(listOf(0.5, 0.0, 0.5), probabilities.toList())
    }
}
