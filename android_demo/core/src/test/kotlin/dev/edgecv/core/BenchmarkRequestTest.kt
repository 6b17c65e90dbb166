package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class BenchmarkRequestTest {
    @Test
    fun `an intent's extras are parsed, with defaults`() {
        assertEquals(
            BenchmarkRequest("a1", 20, 0, listOf(1, 4), Delegate.NNAPI),
            BenchmarkRequest.parse("a1", 20, 0, "1,4", "nnapi"),
        )
        assertEquals(BenchmarkRequest("x", 50, 10, listOf(1), Delegate.XNNPACK), BenchmarkRequest.parse("x", null, null, null, null))
    }

    @Test
    fun `an invalid request raises an error with the received value`() {
        fun refused(folder: String? = "a", runs: Int? = 1, warmup: Int? = 1, threads: String? = "1", delegate: String? = "cpu") =
            assertThrows(InputError::class.java) { BenchmarkRequest.parse(folder, runs, warmup, threads, delegate) }.message!!
        for (folder in listOf(null, "", "../x", "a/b", "A", "a".repeat(33))) assertTrue("Received: $folder" in refused(folder))
        for (runs in listOf(0, -1, 100_001)) assertTrue("Received: $runs" in refused(runs = runs))
        assertTrue("Received: -1" in refused(warmup = -1))
        for (threads in listOf("", "0", "1,,2", "x", "65", "1,1,1,1,1,1,1,1,1")) assertTrue("threads must" in refused(threads = threads))
        assertTrue("Received: tpu" in refused(delegate = "tpu"))
    }
}
