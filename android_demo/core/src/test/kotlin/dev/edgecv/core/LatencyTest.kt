package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test

class LatencyTest {
    @Test
    fun `timings keep the last hundred photos`() {
        val timings = (1..150).fold(Timings()) { all, n -> all + Timing(n.toDouble(), 2.0 * n, 3.0 * n) }
        assertEquals(100, timings.last.size)
        val spread = timings.spread { it.preprocessMs }!!
        assertEquals(100.5, spread.medianMs, 1e-9)
        assertEquals(140.1, spread.p90Ms, 1e-9)
        assertNull(Timings().spread { it.totalMs })
    }
}
