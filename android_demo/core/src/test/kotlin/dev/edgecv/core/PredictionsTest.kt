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
    fun `probabilities of huge logits are finite`() {
        val probabilities = softmax(floatArrayOf(1e30f, -1e30f, 1e30f))
        assertEquals(listOf(0.5, 0.0, 0.5), probabilities.toList())
    }
}
