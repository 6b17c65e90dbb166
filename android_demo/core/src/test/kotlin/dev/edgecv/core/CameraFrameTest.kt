package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class CameraFrameTest {
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
}
