package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource
import java.lang.management.ManagementFactory

/** The way of a camera frame into the model's input. */
class FramePathTest {
    private val preprocessing = Preprocessing(224)
    private val tensor = Tensor(listOf(1, 224, 224, 3), Type.INT8, 1f, -128)

    @ParameterizedTest
    @ValueSource(ints = [0, 90, 180, 270])
    fun `a frame becomes the same input as by whole steps, bit for bit`(degrees: Int) {
        val cropper = Cropper(preprocessing)
        repeat(2) { assertArrayEquals(VgaFrame.byWholeSteps(degrees).rgb, cropper.cropAndResize(VgaFrame.of(degrees)).rgb) }
    }

    @Test
    fun `a frame after the first allocates less than 100 kB`() {
        val cropper = Cropper(preprocessing)
        val writer = InputWriter(tensor, preprocessing, -128)
        val buffer = tensor.buffer()
        val frame = VgaFrame.of(90)
        fun work() = writer.write(cropper.cropAndResize(frame), buffer)
        repeat(3) { work() }
        val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean
        val before = threads.getThreadAllocatedBytes(Thread.currentThread().id)
        work()
        val bytes = threads.getThreadAllocatedBytes(Thread.currentThread().id) - before
        assertTrue(bytes < 100_000, "$bytes bytes")
    }

    @ParameterizedTest
    @ValueSource(ints = [224, 256, 8192])
    fun `a resize to any allowed side needs only the memory of the result`(resizeTo: Int) {
        val photo = Photo(4000, 4, Golden.noise(3 * 4000 * 4, 1))
        val cropped = Preprocessing(224, resizeTo, Rule.RESIZE_THEN_CROP).cropAndResize(photo)
        assertTrue(cropped.rgb.distinct().size > 50)
        assertThrows(InputError::class.java) { Preprocessing(224, 8193, Rule.RESIZE_THEN_CROP) }
    }
}
