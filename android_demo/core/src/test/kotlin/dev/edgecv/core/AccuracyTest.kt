package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class AccuracyTest {
    @Test
    fun `folders meet classes by name, with other cases, spaces, hyphens and underscores`() {
        val classes = listOf("golden retriever", "Tench", "crane", "crane", "t-shirt", "T shirt")
        val found = classPositions(listOf("golden_retriever", "Golden-Retriever", "tench", "crane", "t-shirt", "t_shirt", "dog"), classes)
        val expected = mapOf(
            "golden_retriever" to setOf(0), "Golden-Retriever" to setOf(0), "tench" to setOf(1), "crane" to setOf(2, 3), "t-shirt" to setOf(4),
        )
        assertEquals(expected, found)
    }

    @Test
    fun `folders that are all numbers are indices, unless classes have numbers as names`() {
        assertEquals(mapOf("0" to setOf(0), "2" to setOf(2)), classPositions(listOf("0", "2"), listOf("a", "b", "c")))
        assertEquals(mapOf("2" to setOf(0)), classPositions(listOf("0", "2"), listOf("2", "b", "c")))
        for (names in listOf(listOf("0", "3"), listOf("0", "x"), listOf("00"), listOf("-1"))) {
            assertEquals(emptyMap<String, Set<Int>>(), classPositions(names, listOf("a", "b", "c")))
        }
    }

    @Test
    fun `the interval equals scipy's`() { // binomtest(hits, trials).proportion_ci(0.95, method="wilson")
        for ((counts, expected) in listOf(
            (43 to 50) to WILSON_43_OF_50,
            (0 to 10) to (0.0 to WILSON_0_OF_10),
            (10 to 10) to (1 - WILSON_0_OF_10 to 1.0),
        )) {
            val (low, high) = wilsonInterval(counts.first, counts.second)
            assertEquals(expected.first, low, 1e-9)
            assertEquals(expected.second, high, 1e-9)
        }
    }

    private companion object {
        val WILSON_43_OF_50 = 0.7381380628941446 to 0.9304916657298371
        const val WILSON_0_OF_10 = 0.27753279986288926
    }
}
