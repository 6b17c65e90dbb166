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
    private val planes = listOf(640 * 480 to 640, 320 * 240 to 320, 320 * 240 to 320)
        .mapIndexed { seed, (count, stride) -> Plane(Golden.noise(count, seed + 1), stride, 1) }
    private val preprocessing = Preprocessing(224)
    private val tensor = Tensor(listOf(1, 224, 224, 3), Type.INT8, 1f, -128)

    private fun frame(degrees: Int) = CameraFrame(640, 480, planes[0], planes[1], planes[2], degrees)

    private fun reference(degrees: Int): Photo {
        val photo = Reference.photo(640, 480, planes[0], planes[1], planes[2], degrees)
        val square = Reference.crop(photo, (photo.width - 480 + 1) / 2, (photo.height - 480 + 1) / 2, 480, 480)
        return Reference.resize(square, 224, 224, Interpolation.BICUBIC)
    }

    @ParameterizedTest
    @ValueSource(ints = [0, 90, 180, 270])
    fun `a frame becomes the same input as by whole steps, bit for bit`(degrees: Int) {
        val cropper = Cropper(preprocessing)
        repeat(2) { assertArrayEquals(reference(degrees).rgb, cropper.cropAndResize(frame(degrees)).rgb) }
    }

    @Test
    fun `a frame after the first allocates less than 100 kB`() {
        val cropper = Cropper(preprocessing)
        val writer = InputWriter(tensor, preprocessing, -128)
        val buffer = tensor.buffer()
        val frame = frame(90)
        fun work() = writer.write(cropper.cropAndResize(frame), buffer)
        repeat(3) { work() }
        val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean
        val before = threads.getThreadAllocatedBytes(Thread.currentThread().id)
        work()
        val bytes = threads.getThreadAllocatedBytes(Thread.currentThread().id) - before
        assertTrue(bytes < 100_000, "$bytes bytes")
    }

    @Test
    fun `a frame takes at most 80 percent of the time of whole steps`() {
        val cropper = Cropper(preprocessing)
        val frame = frame(90)
        val whole = mutableListOf<Double>()
        val needed = mutableListOf<Double>()
        repeat(40) { // the first half is warm-up
            whole += ms { reference(90) }
            needed += ms { cropper.cropAndResize(frame) }
        }
        val (old, new) = listOf(whole, needed).map { percentile(it.drop(20), 0.5) }
        println("preprocessing of 640 x 480: $new ms, by whole steps $old ms")
        assertTrue(new < 0.8 * old, "$new ms, by whole steps $old ms")
    }

    private fun ms(work: () -> Unit): Double {
        val start = System.nanoTime()
        work()
        return (System.nanoTime() - start) / 1e6
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
