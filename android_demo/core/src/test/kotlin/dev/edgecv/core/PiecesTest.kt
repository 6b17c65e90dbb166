package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class PiecesTest {
    @Test
    fun `transparent pixels are blended with white`() {
        val pixels = intArrayOf(0xff102030.toInt(), 0x00102030, 0x80000000.toInt())
        val photo = Photo.ofArgb(3, 1) { _, row -> pixels.copyInto(row) }
        assertEquals(listOf(0x10, 0x20, 0x30, 255, 255, 255, 127, 127, 127), photo.rgb.map { it.toInt() and 255 })
    }

    @Test
    fun `only photos above 16 megapixels are decoded at a reduced size`() {
        assertEquals(1, Photo.reduction(4000, 4000))
        assertEquals(2, Photo.reduction(4001, 4000))
        assertEquals(4, Photo.reduction(16320, 12240))
        assertEquals(1, Photo.reduction(1, 16_000_000))
    }

    @Test
    fun `a photo without pixels is rejected`() {
        assertThrows(InputError::class.java) { Photo(0, 5, ByteArray(0)) }
    }

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

    @Test
    fun `timings keep the last hundred photos`() {
        val timings = (1..150).fold(Timings()) { all, n -> all + Timing(n.toDouble(), 2.0 * n, 3.0 * n) }
        assertEquals(100, timings.last.size)
        val spread = timings.spread { it.preprocessMs }!!
        assertEquals(100.5, spread.medianMs, 1e-9)
        assertEquals(140.1, spread.p90Ms, 1e-9)
        assertNull(Timings().spread { it.totalMs })
    }

    @Test
    fun `the rotation follows Android's sensor orientations`() {
        assertEquals(90, CameraFrame.degreesUpright(90, 0, facesUser = false)) // the usual back camera, held upright
        assertEquals(0, CameraFrame.degreesUpright(90, 90, facesUser = false)) // and held sideways
        assertEquals(180, CameraFrame.degreesUpright(90, 270, facesUser = false))
        assertEquals(270, CameraFrame.degreesUpright(270, 0, facesUser = true))
        assertEquals(0, CameraFrame.degreesUpright(270, 90, facesUser = true))
    }

    @Test
    fun `the smallest sufficient frame size is chosen`() {
        val sizes = listOf(4000 to 3000, 640 to 480, 1280 to 720, 320 to 240)
        assertEquals(640 to 480, CameraFrame.chooseSize(sizes, 480))
        assertEquals(1280 to 720, CameraFrame.chooseSize(sizes, 481))
        assertEquals(4000 to 3000, CameraFrame.chooseSize(sizes, 9999))
    }

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

    @Test
    fun `memory is read from the text of proc`() {
        assertEquals(Memory(2048, 4096), LinuxMachine.memory("Name:\tapp\nVmHWM:\t       4 kB\nVmRSS:\t       2 kB\n"))
        assertNull(LinuxMachine.memory("Name:\tapp\n"))
        assertNotNull(LinuxMachine().memory())
    }

    @Test
    fun `the clock is the fastest core's, and null if the system does not provide it`(@TempDir root: File) {
        assertNull(LinuxMachine(root).clockMhz())
        for ((core, kilohertz) in listOf(0 to 600_000, 7 to 2_850_000)) {
            val folder = File(root, "sys/devices/system/cpu/cpu$core/cpufreq").apply { mkdirs() }
            File(folder, "scaling_cur_freq").writeText("$kilohertz\n")
        }
        assertEquals(2850.0, LinuxMachine(root).clockMhz())
    }
}
